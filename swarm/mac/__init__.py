"""Medium access: the airtime ledger, downlink slots, sessions, joins and the device side."""
