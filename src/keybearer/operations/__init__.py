"""What a caller may do: each operation is declared once."""
