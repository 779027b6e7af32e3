"""The page for operators at the root of the admin port: plain files, and who names their addresses.

``pages.py`` hands the files over; the files themselves are in ``static``. They need no build step and ask for
nothing from elsewhere. docs/admin-port.md shows the page.
"""
