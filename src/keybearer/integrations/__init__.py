"""One module for each framework, in that framework's idiom; no rules inside."""
