"""What people look at of a study: its story as one document, charts of it, and pages made of them.

from autoresearch.report.story import Story
from autoresearch.report.charts import charts

story = Story(open_study(folder))()      # JSON-ready; called again it takes in what is new
for chart in charts(story): ...          # Vega-Lite specs, each with the table of its data
"""
