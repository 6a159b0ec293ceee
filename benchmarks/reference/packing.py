"""Best-fit packing in a plain Python loop over a buffer of documents, as scripts for one GPU do it.

pack(documents, out)     # out: (rows, T + 1); what doesn't fit at a row's end is cut off
"""

BUFFER = 1000


def pack(documents, out):
    """Fill `out` with documents (lists of token ids), each place with the longest that fits."""
    rows, capacity = out.shape
    buffer, position = [], 0
    for row in range(rows):
        place = 0
        while place < capacity:
            while len(buffer) < BUFFER:
                buffer.append(documents[position % len(documents)])
                position += 1
            space, best = capacity - place, -1
            for index, document in enumerate(buffer):
                if len(document) <= space and (best < 0 or len(document) > len(buffer[best])):
                    best = index
            if best < 0:
                best = min(range(len(buffer)), key=lambda index: len(buffer[index]))
            document = buffer.pop(best)[:space]
            out[row, place : place + len(document)] = document
            place += len(document)
