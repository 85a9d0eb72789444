"""Why was this connection reset, and by whom?"""

# SPDX-License-Identifier: Apache-2.0
