"""The ground floor: what every program of the course needs of the operating system."""
