"""An agricultural pilot from two spreadsheets: plan the radio, then make the keys."""

from gateway.pilot.channel import ChannelOptions
from gateway.pilot.keys import ProvisionReport, provision
from gateway.pilot.report import PlanReport, plan
from gateway.pilot.tables import CsvErrors

__all__ = ["ChannelOptions", "CsvErrors", "PlanReport", "ProvisionReport", "plan", "provision"]
