// Takes the place of the theme's file of this name, half a megabyte of drawn icons:
// those that the site shows come from the theme's fonts.
