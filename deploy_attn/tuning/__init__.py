"""What is chosen by measurement: the settings of an engine and the forms of a network."""
