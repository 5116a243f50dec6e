"""The ground floor: what every program needs of files, processes, errors and shown text."""
