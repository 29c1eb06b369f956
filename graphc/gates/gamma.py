"""The logarithm of the gamma function and its derivatives: their records."""
