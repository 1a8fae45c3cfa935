"""lockbeat.sync: what the asynchronous client does, for code that blocks."""
