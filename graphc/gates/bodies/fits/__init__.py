"""What the tables of the bodies approximate: one module a family, each with its `TABLES`."""
