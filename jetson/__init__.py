"""The device side, and what the device and the host must do alike.

Runs on Python 3.6 with numpy 1.13 and imports nothing of the other rooms;
relative imports only, so that the folder also works as a package of its own.
"""
