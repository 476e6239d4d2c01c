"""Examples that run: the tests run every one of them."""
