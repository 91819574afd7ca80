"""What a person reads and looks at after a run: tables, pictures and one page of HTML."""
