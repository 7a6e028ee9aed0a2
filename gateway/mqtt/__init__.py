"""The daemon on MQTT: events out, questions in and answers out, and Home Assistant's discovery."""
