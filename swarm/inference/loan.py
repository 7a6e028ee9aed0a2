"""The day that a borrower gets: hour by hour the mean of the lenders that have it, in one frame.

Two lenders err less than the better one of them, if the better one counts more; and what one's lost frame
held, the other has.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm.wire import app
from swarm.wire.readings import (
    ALL_HOURS,
    DAY_HOURS,
    HUMIDITY_TOP,
    READINGS_SIZE_MAX,
    TEMPERATURE_TOP,
    Readings,
    Series,
    series,
)

__all__ = ["composed", "text_of"]

Lent = tuple[int, int | None, int | None, Series | None, Series | None]
"""A READINGS frame without its age."""


def _value(quantity: Series | None, day: Readings, hour: int, top: int) -> int | None:
    """One hour in the quantity's own unit."""
    if quantity is None or not day.hours >> hour & 1:
        return None
    at = (day.hours & ((1 << hour) - 1)).bit_count()
    return min(quantity.values[at] << quantity.step, top)


def _air(days: Sequence[Readings], hour: int) -> tuple[int, int | None] | None:
    """(humidity, temperature) of one hour, means over the lenders that have it; the first counts double."""
    found = [
        (humidity, _value(day.temperature, day, hour, TEMPERATURE_TOP))
        for day in [*days[:1], *days]
        if (humidity := _value(day.humidity, day, hour, HUMIDITY_TOP)) is not None
    ]
    if not found:
        return None
    warm = [temperature for _, temperature in found if temperature is not None]
    humidity = _mean([humidity for humidity, _ in found])
    return humidity, _mean(warm) if len(warm) == len(found) else None


def _mean(values: Sequence[int]) -> int:
    """To the nearest, halves to the even one."""
    return round(sum(values) / len(values))


def composed(humidity_days: Sequence[Readings], rain_days: Sequence[Readings]) -> Lent | None:
    """The same day of several lenders, the best first, as one; None when they have nothing.

    With humidity goes the temperature at which it was measured, where the lenders said it.  Rain is the
    first lender's: a mean of two would be wet wherever either was.
    """
    air = {hour: mean for hour in range(DAY_HOURS) if (mean := _air(humidity_days, hour)) is not None}
    wet = next((day for day in rain_days if day.rainy is not None), None)
    hours = sum(1 << hour for hour in air) if air else ALL_HOURS
    rainy = rain = None
    if wet is not None and hours & wet.hours:
        hours &= wet.hours
        rainy = (wet.rainy or 0) & hours
        rain = (wet.rain_tenth or 0) if rainy else 0
    if not air and rainy is None:
        return None
    chosen = [air[hour] for hour in sorted(air) if hours >> hour & 1]
    warm = [temperature for _, temperature in chosen if temperature is not None]
    with_temperature = bool(chosen) and len(warm) == len(chosen)
    for humidity_step, temperature_step in ((1, 1), (2, 1), (3, 2)):
        humid = series([humidity for humidity, _ in chosen], humidity_step) if chosen else None
        warmth = series(warm, temperature_step) if with_temperature else None
        lent: Lent = (hours, rainy, rain, humid, warmth)
        if len(app.encode(Readings(0, *lent))) <= READINGS_SIZE_MAX:
            return lent
    return (hours, rainy, rain, humid, None)


def text_of(borrower: str, quantity: str, lender: str, correlation: float, size: int) -> str:
    """The loan in words: apple-017 borrows humidity from apple-021: correlation .93, 31 B a day."""
    shown = f"{correlation:.2f}".lstrip("0")
    return f"{borrower} borrows {quantity} from {lender}: correlation {shown}, {size} B a day"
