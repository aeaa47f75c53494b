"""What is asked: files of all kinds (`formats`), names (`places`), read into an `EnvSpec`."""
