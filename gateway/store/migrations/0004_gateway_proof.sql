-- When a gateway last proved itself by a genuine new frame; rows written before count as proved when last seen.

ALTER TABLE gateway ADD COLUMN proved_us INTEGER;
