"""Which agent serves a room: the table of rooms, the links, and the clients that wait for one."""
