"""How the system is put together: the command `rat`, the table of services, the embedded servers."""
