"""The hot path: from headers to a verdict."""
