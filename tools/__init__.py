"""Programs for the project's own developers; not part of the wheel."""
