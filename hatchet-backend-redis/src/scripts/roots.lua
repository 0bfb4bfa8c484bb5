--! no-writes
-- Reads ids of root runs, newest first.
-- ARGV: highest score, lowest score (as ZRANGE takes them), runs at most
-- Reply: for each run: uid, score.
return call('ZRANGE', T .. ':a', ARGV[1], ARGV[2], 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
