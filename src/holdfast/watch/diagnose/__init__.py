"""From events to a diagnosis, by rules that touch no socket, clock or thread."""

# SPDX-License-Identifier: Apache-2.0
