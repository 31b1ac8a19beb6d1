// Placeholder until the commands are here.
print("orch")
