"""`autoresearch dashboard`: the study of a folder as local web pages, live.

    serve(folder, port=None, open_browser=True, announce=print)    # until Ctrl-C

guard.py      who may ask at all: this machine's browser, with the token, from our own page
follower.py   one reader of the study for all who watch: documents, and events that none misses
pages.py      the routes; what they show is made in views.py
machine.py    how busy the machine is, while somebody looks
serve.py      the port, the browser, Ctrl-C
static/       plain JavaScript and CSS, as they are; templates/ are Jinja's, which escape everything

Ideas, logs and diffs come from agents and from the programs that they write: nothing of them may
become markup or script. Templates escape, and the Content-Security-Policy allows no inline script.
"""
