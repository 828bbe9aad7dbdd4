"""The steps of `device_report.py`, which runs each in a process of its own."""
