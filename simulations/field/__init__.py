"""The disease-risk field: weather, plots, sensors, published rules as truth, and learning's baselines."""

from simulations.field.field import Field, public_fields
from simulations.field.weather_csv import WeatherCsvError

__all__ = ["Field", "WeatherCsvError", "public_fields"]
