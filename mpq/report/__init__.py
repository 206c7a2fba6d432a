"""Takes a plan and its analysis, and draws one HTML file or pictures. No torch."""
