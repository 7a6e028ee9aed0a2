"""Radio arithmetic: time on air, regional rules as tables, and the link budget."""
