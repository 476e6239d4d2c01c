"""The outside: database, mail, password hashing."""
