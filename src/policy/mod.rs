//! What is allowed: YAML → nodes → document → checked → compiled.
