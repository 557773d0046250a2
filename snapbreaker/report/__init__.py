"""What happened, told: one model, rendered as text, Markdown, JSON and HTML, and the events of ``--json``."""
