"""HTTP: operations become routes, failures become problem+json."""
