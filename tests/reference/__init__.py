"""Plain linear evaluations of the written semantics, as literal as they can be; engines are compared with them."""
