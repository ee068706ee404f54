#!/usr/bin/env bash
# Prints the Chromium that the tests use: $CHROMIUM, or the first one found. Exit 1: there is none.
for name in ${CHROMIUM:+"$CHROMIUM"} chromium chromium-browser google-chrome-stable google-chrome; do
    command -v "$name" && exit 0
done
exit 1
