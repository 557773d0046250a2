"""What a run is judged by besides its command's output: log files, the journal, units that fail."""
