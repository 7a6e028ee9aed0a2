"""Rounds of any Flower strategy, as Flower's own examples write them."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp, strategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Start from the cell's model, train, and leave the result for the cell."""
    chosen = getattr(strategy, str(context.run_config["strategy"]))(fraction_evaluate=0.0)
    rounds = int(context.run_config["rounds"])
    result = chosen.start(grid, context.state["arrays"], num_rounds=rounds)
    if result.arrays:
        context.state["arrays"] = result.arrays
