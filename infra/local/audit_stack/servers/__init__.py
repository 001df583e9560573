"""One module per server: its files, its command, and how it shows that it is ready."""
