//! Spans and losses go in; terminals, files and collectors get them, and what was lost on the way is reported.
