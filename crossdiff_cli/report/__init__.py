"""The page of one result: pictures, maps, histograms and figures, in one self-contained HTML file."""
