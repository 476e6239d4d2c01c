"""What several processes share quickly; the truth is in the database."""
