"""The account pages: HTML over the same operations as the API."""
