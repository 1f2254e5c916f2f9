"""What endangers the box: readers of single facts, in a process that may hang and be replaced, and pure judgement over what they say."""
