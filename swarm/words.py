"""How a count is said in a line for people."""

__all__ = ["counted"]


def counted(count: int, what: str, plural: str | None = None) -> str:
    """`1 node`, `2 nodes`; `plural` where an s is not enough."""
    return f"{count} {what if count == 1 else plural or what + 's'}"
