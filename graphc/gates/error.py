"""The error function, its kin and its inverse: their records."""
