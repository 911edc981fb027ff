"""The service benchmark: Scorewire beside other ways to serve the same forest, under the same load."""
