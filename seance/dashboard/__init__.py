"""The dashboard, a web page at the root of the admin port.

``pages`` returns the files of ``static`` with their paths. They need no build step and load nothing from
other servers. docs/admin-port.md describes the page.
"""
