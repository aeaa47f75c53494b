"""The kinds of files that say what an env holds, a module each: pure text in, an `EnvSpec` out."""
