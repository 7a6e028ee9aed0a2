"""Planning a pilot on paper: links, airtime, rounds and batteries, before anything is bought."""
