"""Is it better? Panels, statistics, plots and reports. No ROS.

`statistics` turns trials into intervals and paired tests, `plots` draws them, `report` writes one
HTML file that needs nothing else, `gate` and `panel` decide what to do next.
"""
